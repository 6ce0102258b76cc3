/* registers.h - the STM32F405's registers that this port touches (reference manual RM0090) and the
 * Cortex-M4's own. */
#ifndef STM32F4_REGISTERS_H
#define STM32F4_REGISTERS_H

#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(address))

#define RCC_CR      REG(0x40023800u)
#define RCC_PLLCFGR REG(0x40023804u)
#define RCC_CFGR    REG(0x40023808u)
#define RCC_AHB1ENR REG(0x40023830u)
#define RCC_APB1ENR REG(0x40023840u)
#define RCC_APB2ENR REG(0x40023844u)
#define RCC_HSIRDY  (1u << 1)
#define RCC_HSEON   (1u << 16)
#define RCC_HSERDY  (1u << 17)
#define RCC_PLLON   (1u << 24)
#define RCC_PLLRDY  (1u << 25)
#define RCC_PLLHSE  (1u << 22)

#define FLASH_ACR  REG(0x40023C00u)
#define FLASH_KEYR REG(0x40023C04u)
#define FLASH_SR   REG(0x40023C0Cu)
#define FLASH_CR   REG(0x40023C10u)

#define GPIO(port, offset) REG(0x40020000u + 0x400u * (port) + (offset))
#define GPIO_MODER         0x00u
#define GPIO_OSPEEDR       0x08u
#define GPIO_PUPDR         0x0Cu
#define GPIO_AFR           0x20u

#define USART_SR   0x00u
#define USART_DR   0x04u
#define USART_BRR  0x08u
#define USART_CR1  0x0Cu
#define USART_ORE  (1u << 3)
#define USART_RXNE (1u << 5)
#define USART_TC   (1u << 6)
#define USART_TXE  (1u << 7)

#define SYST_CSR     REG(0xE000E010u)
#define SYST_RVR     REG(0xE000E014u)
#define SYST_CVR     REG(0xE000E018u)
#define NVIC_ISER(n) REG(0xE000E100u + 4u * (n))
#define SCB_AIRCR    REG(0xE000ED0Cu)
#define SCB_SHCSR    REG(0xE000ED24u)
#define SCB_CFSR     REG(0xE000ED28u)
#define SCB_CPACR    REG(0xE000ED88u)

#endif
